// Package boltfile is the file of a member's log: raft-boltdb's, over bbolt, checked as a whole before it is used.
//
// # Contract
//
//   - Open fails unless both meta pages are whole with adjacent transaction ids, and the page tree is sound: each page is in
//     its place and used once, and all keys are in order. What the records hold is checked by who stores them.
//   - One process has the file at a time. It is of mode 0600.
//   - Nothing is repaired. Errors name the file and what to do.
//   - ReturnPages gives the memory back that bbolt's mapping keeps resident; it changes nothing else.
package boltfile
