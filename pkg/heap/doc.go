// Package heap tunes the collector for a daemon that keeps what it is told for as long as it lives: little memory at
// rest, few collections at work. It changes settings of the whole process, so that only a daemon's composition may run it.
package heap
