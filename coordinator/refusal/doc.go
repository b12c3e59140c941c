// Package refusal is how an error looks on the wire: one code for each kind (Code), what programs read (Detail), and both as
// Connect sends them (Connect). What went wrong inside a coordinator is not told outside: of an internal error the caller
// learns that there was one, and who sends it logs the cause.
//
// The room decides nothing but that, and does no I/O.
package refusal
