// Package fault is how Farrier's rooms speak of failure: an error has a kind, says what was being done, and
// tells the reader what to do next. Rooms wrap with lower-case context; the boundary (coordinator/refusal,
// pkg/client, cmd/farrier) maps the kind once.
package fault
