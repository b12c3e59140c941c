package osimage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/farrier-project/farrier/ramdisk-agent/image"
)

const (
	mib        = 1 << 20
	espStart   = 1 * mib
	espSize    = 48 * mib
	dataStart  = espStart + espSize
	dataSize   = 64 * mib
	diskSize   = dataStart + dataSize + 1*mib
	sector     = 512
	busybox    = "/bin/busybox"
	gptMBR     = "/usr/lib/syslinux/mbr/gptmbr.bin"
	markerSize = 64
)

// Markers is how many markers an image carries.
const Markers = 1000

// Options say what to build from.
type Options struct {
	Dir     string // where the image is made
	Kernel  string // vmlinuz
	Modules string // lib/modules/VERSION of the same kernel
	Nonce   string // drawn by this run: printed at boot, and the seed of the markers
}

// Image is what was built.
type Image struct {
	Path   string
	SHA256 string // hex, of the file
	Size   int64
}

// Build makes the image.
func Build(o Options) (*Image, error) {
	path := filepath.Join(o.Dir, "os-"+o.Nonce+".img")
	if err := partition(path); err != nil {
		return nil, fmt.Errorf("partition image: %w", err)
	}
	if err := fillESP(path, o); err != nil {
		return nil, fmt.Errorf("fill EFI system partition: %w", err)
	}
	if out, err := exec.Command("syslinux", "--install", "--offset", fmt.Sprint(espStart), path).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("install syslinux (run `make setup`): %w: %s", err, out)
	}
	if err := bootSector(path); err != nil {
		return nil, fmt.Errorf("write boot sector: %w", err)
	}
	if err := plantMarkers(path, o.Nonce); err != nil {
		return nil, fmt.Errorf("plant markers: %w", err)
	}
	sum, err := digest(path)
	return &Image{Path: path, SHA256: sum, Size: diskSize}, err
}

func partition(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	d, err := diskfs.Create(path, diskSize, diskfs.SectorSizeDefault)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Partition(&gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, Partitions: []*gpt.Partition{
		// Attribute bit 2 (UEFI specification, table 5.8): what gptmbr.bin boots.
		{Index: 1, Start: espStart / sector, End: (espStart+espSize)/sector - 1, Type: gpt.EFISystemPartition, Name: "esp", Attributes: 1 << 2},
		{Index: 2, Start: dataStart / sector, End: (dataStart+dataSize)/sector - 1, Type: gpt.LinuxFilesystem, Name: "data"},
	}})
}

func fillESP(path string, o Options) error {
	initrd, err := userland(o)
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile(o.Kernel)
	if err != nil {
		return err
	}
	d, err := diskfs.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	fs, err := d.CreateFilesystem(disk.FilesystemSpec{Partition: 1, FSType: filesystem.TypeFat32, VolumeLabel: "BOOT"})
	if err != nil {
		return err
	}
	config := "DEFAULT os\nPROMPT 0\nTIMEOUT 0\nSERIAL 0 115200\nLABEL os\n  KERNEL /vmlinuz\n  INITRD /initrd\n  APPEND console=ttyS0 no_timer_check panic=5 quiet farrier.image=" + o.Nonce + "\n"
	for _, f := range []struct {
		name string
		data []byte
	}{{"/vmlinuz", kernel}, {"/initrd", initrd}, {"/syslinux.cfg", []byte(config)}} {
		w, err := fs.OpenFile(f.name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if _, err := io.Copy(w, bytes.NewReader(f.data)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := w.Close(); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// script is process 1 of the installed system.
const script = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec >/dev/console 2>&1
while read m; do insmod /modules/$m; done </modules/order
n=0
while [ ! -b /dev/vda ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
image=$(sed 's/.*farrier.image=\([^ ]*\).*/\1/' /proc/cmdline)
mkdir -p /config
for p in /dev/vda[0-9]*; do
  label=$(dd if=$p bs=1 skip=32808 count=8 2>/dev/null)
  [ "$label" = config-2 ] || continue
  mount -t iso9660 -o ro $p /config || continue
  break
done
uuid=$(sed -n 's/.*"uuid": *"\([^"]*\)".*/\1/p' /config/openstack/latest/meta_data.json)
echo "FARRIER-OS image=$image uuid=$uuid user-data=$(cat /config/openstack/latest/user_data)"
if [ -b /dev/vdb ]; then # a second disk, with a config drive for large sectors
  mkdir -p /spare
  mount -t vfat -o ro /dev/vdb /spare
  echo "FARRIER-OS image=$image sectors=$(cat /sys/block/vdb/queue/logical_block_size) spare=$(cat /spare/openstack/latest/user_data)"
fi
sync
while true; do sleep 60; done
`

func userland(o Options) ([]byte, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("%w: run `make setup`", err)
	}
	modules, _, err := image.Resolve(o.Modules, []string{"virtio_pci", "virtio_blk", "isofs", "nls_utf8", "vfat", "nls_cp437", "nls_iso8859-1", "nls_ascii"}, true)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = image.Write(&out, image.Contents{Init: []byte(script), Modules: modules, Files: []image.File{{Name: "bin/busybox", Perm: 0o755, Data: program}}})
	return out.Bytes(), err
}

// bootSector puts syslinux's GPT boot code into the protective MBR, before its partition table.
func bootSector(path string) error {
	code, err := os.ReadFile(gptMBR)
	if err != nil {
		return fmt.Errorf("%w: run `make setup`", err)
	}
	if len(code) > 440 {
		return fmt.Errorf("%s has %d bytes instead of at most 440", gptMBR, len(code))
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(code, 0)
	return errors.Join(err, f.Close())
}

// marker is the i-th marker: no two runs share one.
func marker(nonce string, i int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", nonce, i))
	return fmt.Appendf(nil, "farrier-marker-%s", hex.EncodeToString(sum[:])[:markerSize-15])
}

func plantMarkers(path, nonce string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for i := range Markers {
		sum := sha256.Sum256(fmt.Appendf(nil, "place/%s/%d", nonce, i))
		slot := dataSize / Markers / sector // sectors for each marker to choose from
		at := dataStart + i*slot*sector + int(binary.BigEndian.Uint32(sum[:])%uint32(slot))*sector
		if _, err := f.WriteAt(marker(nonce, i), int64(at)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// CountMarkers reads every byte of a disk and counts the run's markers on it. Holes are read as well.
func CountMarkers(path, nonce string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	want := map[string]bool{}
	for i := range Markers {
		want[string(marker(nonce, i))] = true
	}
	prefix := []byte("farrier-marker-")
	found := map[string]bool{}
	buf := make([]byte, 4*mib+markerSize)
	for off := int64(0); ; off += 4 * mib {
		n, err := f.ReadAt(buf, off)
		for rest := buf[:n]; ; {
			i := bytes.Index(rest, prefix)
			if i < 0 || i+markerSize > len(rest) {
				break
			}
			if m := string(rest[i : i+markerSize]); want[m] {
				found[m] = true
			}
			rest = rest[i+1:]
		}
		if errors.Is(err, io.EOF) {
			return len(found), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
