// Package outbox holds the messages for one agent until its stream takes them. Put never blocks: what does not fit ends the stream,
// and the agent comes again to be told everything.
package outbox
