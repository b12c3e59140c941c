package steps

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/gpt"
	"github.com/farrier-project/farrier/ramdisk-agent/iso"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

const (
	configLabel   = "config-2"
	configSize    = 64 * mib // of a new partition; less when the disk has not that much room
	maxConfigSize = 32 * mib
)

// writeConfigDrive writes the config drive (OpenStack's config-2) to a partition of its own at the end of the disk,
// and reads it back. Secret arguments meta_data, network_data, user_data and vendor_data are the files' contents.
func (r *Runner) writeConfigDrive(o work.Order) (result, error) {
	img, err := configImage(o)
	if err != nil {
		return result{}, err
	}
	info, err := disk.Find(r.cfg.Host, o.Args["disk_id"])
	if err != nil {
		return result{}, err
	}
	d, err := r.cfg.Host.Open(info)
	if err != nil {
		return result{}, err
	}
	defer d.Close()
	part, err := configPartition(disk.NewSpan(d, info), int64(len(img)))
	if err != nil {
		return result{}, fault.Wrap("make config drive partition", err)
	}
	padded := disk.Buffer(int((int64(len(img)) + info.Sector - 1) / info.Sector * info.Sector))
	copy(padded, img)
	if _, err := d.WriteAt(padded, part.Start); err != nil {
		return result{}, err
	}
	if err := d.Flush(); err != nil {
		return result{}, err
	}
	back := disk.Buffer(len(padded))
	if _, err := d.ReadAt(back, part.Start); err != nil {
		return result{}, err
	}
	if !bytes.Equal(back, padded) {
		return result{}, fault.New(fault.Corrupt, "read back config drive", "it differs from what was written").
			WithHelp("the disk is failing: replace it")
	}
	return result{facts: map[string]string{"partition": strconv.Itoa(part.Number), "start": strconv.FormatInt(part.Start, 10),
		"bytes": strconv.Itoa(len(img))}}, nil
}

func configImage(o work.Order) ([]byte, error) {
	secret, err := secrets(o)
	if err != nil {
		return nil, err
	}
	get := func(name string) string {
		if s := secret[name]; s != "" {
			return s
		}
		return o.Args[name]
	}
	total := 0
	var files []iso.File
	for _, f := range []struct{ arg, file, absent string }{
		{"meta_data", "meta_data.json", `{"uuid":` + strconv.Quote(o.Ref.Node) + `}`},
		{"network_data", "network_data.json", ""},
		{"user_data", "user_data", ""},
		{"vendor_data", "vendor_data.json", ""},
	} {
		text := get(f.arg)
		if text == "" {
			text = f.absent
		}
		if text == "" {
			continue
		}
		if f.arg != "user_data" && !json.Valid([]byte(text)) {
			return nil, fault.New(fault.Invalid, "make config drive", "%s is not JSON", f.arg).
				WithDetail(&fault.FieldDetail{Field: f.arg})
		}
		if total += len(text); total > maxConfigSize {
			return nil, fault.New(fault.TooLarge, "make config drive", "more than %d bytes", maxConfigSize)
		}
		files = append(files, iso.File{Path: "openstack/latest/" + f.file, Data: []byte(text)})
	}
	return iso.Build(configLabel, files)
}

// configPartition is the partition named config-2, made if there is none that is big enough.
func configPartition(d gpt.Disk, need int64) (gpt.Partition, error) {
	t, err := gpt.Read(d)
	if fault.Is(err, fault.NotFound) {
		return gpt.Partition{}, fault.New(fault.Unsupported, "read partition table", "the image has no GPT to put the config drive in").
			WithHelp("deploy an image with a GPT, or without user data and network data")
	}
	if err != nil {
		return gpt.Partition{}, err
	}
	old, found := t.Find(configLabel)
	if found && old.Size >= need && old.Start >= 0 && old.Start+old.Size <= d.Size() {
		return old, nil
	}
	if found {
		t.Remove(old.Number)
	}
	if err := t.Fit(d.Size()); err != nil {
		return gpt.Partition{}, err
	}
	for size := int64(configSize); ; size = max(size/2, (need+mib-1)/mib*mib) {
		if start, ok := t.Free(size, mib); ok && size >= need {
			part, err := t.Add(configLabel, gpt.LinuxFilesystem, start, size)
			if err != nil {
				return gpt.Partition{}, err
			}
			return part, t.Write(d)
		}
		if size <= (need+mib-1)/mib*mib {
			return gpt.Partition{}, fault.New(fault.TooLarge, "find room", "no %d free bytes after the image's partitions", size).
				WithHelp("use a larger disk, or an image whose partitions leave 1 MiB free at the end")
		}
	}
}
