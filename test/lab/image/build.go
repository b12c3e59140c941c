package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	diskfs "github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

const (
	version = "1" // of the image's bytes: raise it with every change to them

	sector       = 512
	mib          = 1 << 20
	espStart     = 1 * mib
	espBytes     = 40 * mib
	payloadStart = espStart + espBytes
	// PayloadBytes is the size of the payload partition.
	PayloadBytes = 256 * mib
	// Bytes is the size of the image: the partitions, a MiB before them and one behind for the backup table.
	Bytes = payloadStart + PayloadBytes + 1*mib

	diskGUID    = "F4441E40-1C5E-4F00-8E64-000000000001"
	espGUID     = "F4441E40-1C5E-4F00-8E64-000000000002"
	payloadGUID = "F4441E40-1C5E-4F00-8E64-000000000003"

	payloadName  = "farrier-payload"
	headerBytes  = 4096 // of the payload: magic, length, SHA-256 of what follows
	payloadMagic = "farrier demo payload 1\n"
	chunk        = 4 * mib
	zeroEvery    = 4 // every fourth chunk is zeros, as in real images
)

// Image is an image on disk.
type Image struct {
	Path   string
	SHA256 string // hex
	Bytes  int64
}

// Build returns the image from dir, and makes it there if it is not, or not what it should be. It takes about two
// seconds the first time.
func Build(dir string) (Image, error) {
	img := Image{Path: filepath.Join(dir, "demo-"+version+".raw"), Bytes: Bytes}
	want, err := os.ReadFile(img.Path + ".sha256")
	if err == nil {
		if img.SHA256, err = digest(img.Path); err == nil && img.SHA256 == string(bytes.TrimSpace(want)) {
			return img, nil
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return img, fmt.Errorf("make image directory: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".building-")
	if err != nil {
		return img, fmt.Errorf("make image directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	path := filepath.Join(tmp, "image")
	if err := write(path); err != nil {
		return img, fmt.Errorf("build image: %w", err)
	}
	if img.SHA256, err = digest(path); err != nil {
		return img, err
	}
	if err := os.Rename(path, img.Path); err != nil {
		return img, fmt.Errorf("keep image: %w", err)
	}
	return img, os.WriteFile(img.Path+".sha256", []byte(img.SHA256+"\n"), 0o644)
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, f, make([]byte, mib)); err != nil {
		return "", fmt.Errorf("hash image: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func write(path string) (err error) {
	d, err := diskfs.Create(path, Bytes, diskfs.SectorSize512)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	table := &gpt.Table{
		GUID: diskGUID, LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true,
		Partitions: []*gpt.Partition{
			{Index: 1, Start: espStart / sector, End: payloadStart/sector - 1, Type: gpt.EFISystemPartition, Name: "EFI system", GUID: espGUID},
			{Index: 2, Start: payloadStart / sector, End: (payloadStart+PayloadBytes)/sector - 1, Type: gpt.LinuxFilesystem, Name: payloadName, GUID: payloadGUID},
		},
	}
	if err := d.Partition(table); err != nil {
		return err
	}
	if err := writeESP(d); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(writePayload(f), f.Close())
}

// writeESP makes the FAT32. go-diskfs takes the files' dates from SOURCE_DATE_EPOCH, the convention of
// reproducible-builds.org, and from the clock without it.
func writeESP(d *disk.Disk) error {
	old, had := os.LookupEnv("SOURCE_DATE_EPOCH")
	if err := os.Setenv("SOURCE_DATE_EPOCH", "1767225600"); err != nil {
		return err
	}
	defer func() {
		if had {
			_ = os.Setenv("SOURCE_DATE_EPOCH", old)
		} else {
			_ = os.Unsetenv("SOURCE_DATE_EPOCH")
		}
	}()
	fs, err := d.CreateFilesystem(disk.FilesystemSpec{Partition: 1, FSType: filesystem.TypeFat32, VolumeLabel: "FARRIER", Reproducible: true})
	if err != nil {
		return fmt.Errorf("make FAT32: %w", err)
	}
	for _, dir := range []string{"EFI", "EFI/BOOT"} {
		if err := fs.Mkdir(dir); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	for name, text := range map[string]string{"EFI/BOOT/BOOTX64.EFI": "stand-in for a boot loader: software machines do not execute it\n"} {
		f, err := fs.OpenFile(name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("close %s: %w", name, err)
		}
	}
	return nil
}

// writePayload fills the second partition: three chunks of a fixed pseudo-random stream, one of zeros, and so on,
// behind a header that names their SHA-256.
func writePayload(f *os.File) error {
	var seed [32]byte
	copy(seed[:], payloadMagic)
	source := rand.NewChaCha8(seed)
	h := sha256.New()
	block := make([]byte, chunk)
	off := int64(payloadStart)
	for i := 0; off < payloadStart+PayloadBytes; i++ {
		b := block
		if i%zeroEvery == zeroEvery-1 {
			clear(b)
		} else {
			_, _ = source.Read(b) // never fails
		}
		if i == 0 {
			clear(b[:headerBytes])
			h.Write(b[headerBytes:])
		} else {
			h.Write(b)
		}
		if i%zeroEvery != zeroEvery-1 { // zeros are holes already
			if _, err := f.WriteAt(b, off); err != nil {
				return err
			}
		}
		off += chunk
	}
	head := make([]byte, headerBytes)
	n := copy(head, payloadMagic)
	binary.BigEndian.PutUint64(head[n:], PayloadBytes-headerBytes)
	copy(head[n+8:], h.Sum(nil))
	_, err := f.WriteAt(head, payloadStart)
	return err
}
