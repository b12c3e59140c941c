// Package usage tells what processes have used: CPU time and memory, as the kernel counts them.
package usage
