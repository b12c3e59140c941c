// Package machine describes a software machine: what the ramdisk agent finds when it runs as a plain process
// instead of on hardware. The file is JSON, at most 1 MiB, and unknown fields are refused:
//
//	{
//	  "system": {"uuid": "11111111-2222-4333-8444-555555555555", "serial": "SN1",
//	             "manufacturer": "Farrier", "product": "Software machine", "bios_version": "1"},
//	  "boot_mode": "bios",                 bios (default) or uefi
//	  "cpus": 2, "cpu_model": "...",       default 1, "simulated"
//	  "memory_mib": 1024,                  default 1024
//	  "source_ip": "127.77.0.2",           local address of every outgoing connection; default: the kernel's choice
//	  "nics":  [{"name": "eth0", "mac": "52:54:00:00:00:01", "ip": "127.77.0.2"}],
//	  "disks": [{
//	     "path": "disk0.img",              relative paths are below the directory of the JSON file; made (sparse) if absent
//	     "size_bytes": 536870912,          needed when the file is absent; otherwise it must be the file's size
//	     "name": "sda",                    default sda, sdb, ... in order
//	     "serial": "D1", "wwn": "0x5000c50000000001", "vendor": "Farrier", "model": "Software disk",
//	     "rotational": false,
//	     "read_only": false, "removable": false,
//	     "discard": true,                  true (default), false, or "lies": it answers success and changes nothing
//	     "sector": 512,                    logical sector: 512 (default) or 4096
//	     "write_bytes_per_second": 0,      0: as fast as it goes; for tests that must meet a write half-way
//	     "write_log": ""                   file that gets one line "write OFFSET LENGTH" (or discard, zero) for each change
//	     "write_gate": ""                  file with a number of bytes: while it is there, a disk that was given so many
//	                                       since it was opened holds its further writes; for tests that stop in the middle
//	  }]
//	}
//
// Everything that a software machine reports carries simulated: true.
package machine
