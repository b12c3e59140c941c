// Package iso makes small ISO 9660 images (ECMA-119) with Rock Ridge names (IEEE P1282, PX and NM), in memory: what
// a config drive is. The same input gives the same bytes: there are no dates and no random identifiers.
package iso
