// Package docs runs what the documents say, so that they cannot rot. It reads each block of README.md and docs/*.md:
//
//   - sh: each line is run in order, on real daemons, as somebody would who follows the page. What stands for the reader's
//     own (addresses, paths of the system, tokens, digests) is replaced as substitutions in host_test.go says; what needs
//     root or systemd is replaced as treatments in command_test.go says, with what is checked instead.
//   - yaml, ini: the configuration is read by the daemon's loader as it stands, the unit by the rules in unit_test.go; then
//     the daemon runs with it.
//   - text: an excerpt of what a command prints is compared with what it prints.
//
// A code span that is a command has to be one that the program knows, with flags that it has; those of a table with the
// column "command" are run too. A line or a block that nothing here knows how to treat fails the test.
package docs
