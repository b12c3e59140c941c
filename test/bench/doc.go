// Command bench measures Farrier beside its anchors and goals, and prints a table and JSON.
//
// A figure is compared with its anchor in the same run, on the same cores, with fsync on; the two take turns (A B A B A B)
// and the median counts. Ironic's figures are recorded ones, from Debian's Ironic 21.4.4 with MariaDB and fake hardware on
// a machine of the same kind: it is too heavy to install for a bench. Row 3 also sets itself beside them at this machine's
// speed, which PostgreSQL tells: it was recorded there too. Everything runs on loopback; BMCs and machines are simulated.
//
//	make bench            all rows, within 30 minutes
//	make bench ROW=1      one row
//	make bench LONG=1     the long parts as well
package main
