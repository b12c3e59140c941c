// Package access says who may do what with the API: which roles may call a method and which member serves it (Methods), who calls
// (Caller, read from a certificate and, where a coordinator speaks for another, from headers), and whether the roster of the
// replicated state still believes the keys behind the call (Admitted).
//
// It answers from what it is given: a request, a view. What follows from an answer is gate's and request's to do.
package access
