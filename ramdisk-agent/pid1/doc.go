// Package pid1 is what /init of the ramdisk must do besides working for the agents. Process 1 itself does very little, so that
// it cannot die: it mounts the kernel's file systems, starts the program again as its child (stage 2), reaps, and leaves
// the machine as the child's exit code says; a child that crashed, or was killed for want of memory, is followed by a
// reboot after 10 s. The child loads the kernel modules and brings up the network (Prepare).
package pid1
