// Package flow has the records of a flow, the durable plan of one piece of work on a node, and the templates
// that fix a flow's steps: per kind, and per phase. Phase one boots the ramdisk (or is all there is); phase two
// is committed at the ramdisk's first contact. The package is pure and decides nothing about when steps run:
// that is coordinator/job's.
package flow
