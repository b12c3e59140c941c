// Package httpboot serves over plain HTTP what a booting machine fetches: its iPXE script, kernel and ramdisk under the
// boot attempt's id, boot programs for UEFI HTTP Boot, and images by digest.
//
//	/boot/<boot id>/ipxe       the script, which carries the attempt's secret
//	/boot/<boot id>/kernel     with ranges and HEAD
//	/boot/<boot id>/ramdisk    with ranges and HEAD
//	/boot/unknown/ipxe         the script of machines that the rack does not know
//	/programs/<name>           boot programs
//	/images/<hex SHA-256>      images of the cache, with ranges and HEAD
//
// A boot id that this agent never had is 404; one that expired or was closed is 410; the body says why. An attempt
// that a ramdisk has claimed gets a script that waits: it may start no second ramdisk, nor a half-written
// disk. Answers come from the table in memory; kernel and ramdisk are the two files of the configuration, and no name in a
// request is ever used as a path.
package httpboot
