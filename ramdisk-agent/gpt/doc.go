// Package gpt reads and changes GUID partition tables (UEFI specification, chapter 5): it checks both copies by
// their checksums, moves the backup to the end of the disk, and adds or finds a partition. It does no more than
// that to a table: entries it does not touch keep every bit.
package gpt
