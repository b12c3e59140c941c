// Package canon writes values as canonical bytes, and reads them back: equal values have equal bytes. The replicated state
// hashes records in this form, and keeps, copies and stores nodes in it.
//
// A number is a varint (unsigned, or zig-zag for what may be negative), a text its length and its bytes, a flag one byte, a
// list its length and its texts, a map its length and its pairs in the order of their keys. There are no names and no types:
// who reads knows what was written, in which order.
//
// A Reader takes nothing for a value that a Writer would not have written: it then is Cut, and answers zero values.
//
// Neither is safe for concurrent use.
package canon
