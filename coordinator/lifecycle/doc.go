// Package lifecycle is the life of a node as a table: Ironic's 30 provision states, its 93 transitions with
// their exact strings, and a second table of a few rows of our own, each with the reason it exists.
//
// What a user may ask for is a [Verb]; what the system reports to itself is an [Event]. They are different
// types and different columns of the table, so that no request can be an internal event, even where Ironic
// gives both one name (manage, clean).
//
// The room is pure: it looks rows up and changes nothing. Only coordinator/apply moves a node.
package lifecycle
