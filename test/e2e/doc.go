// Package e2e takes a machine under QEMU, with real firmware and a real kernel, from power-on to a booted disk and back
// to a wiped one: three coordinators and two rack agents as processes, a network of its own, the Redfish emulator on
// QEMU's monitor, our ramdisk. `make e2e` runs it; it is behind the build tag e2e because it needs the Debian packages
// that `make setup` installs.
//
// The serial log, a picture of the screen and the logs of all processes are kept when a test fails. E2E_DIR names the
// directory for them; they are kept always then.
package e2e
