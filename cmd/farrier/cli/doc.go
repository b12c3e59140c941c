// Package cli is the command line of Farrier: subcommands by noun over pkg/client. It holds no rule of the domain; what is
// legal is the coordinators' to say.
package cli
