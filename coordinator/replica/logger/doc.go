// Package logger writes the log lines of hashicorp/raft, which are hclog's, to a slog.Logger.
//
// What raft calls Info is Debug here, Warn is Info and Error is Warn: elections and leadership are logged by coordinator/replica, and
// what raft tries again by itself is no failure of the member.
package logger
