package steps

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/fat"
	"github.com/farrier-project/farrier/ramdisk-agent/iso"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

const (
	maxConfigSize = 32 * mib
	maxISOSector  = 2048 // above it, Linux does not mount ISO 9660
)

// driveRequired is an order's argument config_drive: the user gave data that the machine must find. Otherwise an image that
// has no place for a drive does without.
const driveRequired = "required"

// writeConfigDrive writes the config drive (OpenStack's config-2) to a partition of its own at the end of the disk,
// and reads it back. Secret arguments meta_data, network_data, user_data and vendor_data are the files' contents. The fact
// config_drive is iso9660 or vfat, or none when the image has no place for one and none is required.
func (r *Runner) writeConfigDrive(o work.Order) (result, error) {
	files, given, err := configFiles(o)
	if err != nil {
		return result{}, err
	}
	info, err := disk.Find(r.cfg.Host, o.Args["disk_id"])
	if err != nil {
		return result{}, err
	}
	kind, img, err := configImage(files, info.Sector)
	if err != nil {
		return result{}, err
	}
	d, err := r.cfg.Host.Open(info)
	if err != nil {
		return result{}, err
	}
	defer d.Close()
	span := disk.NewSpan(d, info)
	place, err := placeDrive(span, int64(len(img)))
	switch {
	case err == nil:
	case !given && o.Args["config_drive"] != driveRequired && (fault.Is(err, fault.Unsupported) || fault.Is(err, fault.TooLarge) || fault.Is(err, fault.Corrupt)):
		r.cfg.Log.Warn("the image has no place for a config drive: it does without", "disk", info.ID, "err", err)
		return result{facts: map[string]string{"config_drive": "none"}}, nil
	default:
		return result{}, fault.Wrap("make config drive partition", err)
	}
	if err := putDrive(d, img, place.start); err != nil {
		return result{}, err
	}
	if place.table != nil {
		if err := place.table.write(span); err != nil {
			return result{}, fault.Wrap("make config drive partition", err)
		}
		if err := d.Flush(); err != nil {
			return result{}, err
		}
	}
	return result{facts: map[string]string{"config_drive": kind, "partition": strconv.Itoa(place.number),
		"start": strconv.FormatInt(place.start, 10), "bytes": strconv.Itoa(len(img))}}, nil
}

// putDrive writes the drive's bytes and reads them back.
func putDrive(d disk.Disk, padded []byte, start int64) error {
	if _, err := d.WriteAt(padded, start); err != nil {
		return err
	}
	if err := d.Flush(); err != nil {
		return err
	}
	back := disk.Buffer(len(padded))
	if _, err := d.ReadAt(back, start); err != nil {
		return err
	}
	if !bytes.Equal(back, padded) {
		return fault.New(fault.Corrupt, "read back config drive", "it differs from what was written").
			WithHelp("the disk is failing: replace it")
	}
	return nil
}

// configImage makes the file system: ISO 9660, or FAT for sectors on which Linux does not mount that. cloud-init takes both.
// The buffer is made for whole sectors.
func configImage(files []iso.File, sector int64) (kind string, img []byte, err error) {
	if kind = "iso9660"; sector > maxISOSector {
		kind = "vfat"
		same := make([]fat.File, len(files))
		for i, f := range files {
			same[i] = fat.File(f)
		}
		img, err = fat.Build(configLabel, int(sector), same)
	} else {
		img, err = iso.Build(configLabel, files)
	}
	if err != nil {
		return "", nil, err
	}
	padded := disk.Buffer(int((int64(len(img)) + sector - 1) / sector * sector))
	copy(padded, img)
	return kind, padded, nil
}

// configFiles are the drive's files. given: more than the meta data that every machine gets is among them.
func configFiles(o work.Order) (files []iso.File, given bool, err error) {
	secret, err := secrets(o)
	if err != nil {
		return nil, false, err
	}
	get := func(name string) string {
		if s := secret[name]; s != "" {
			return s
		}
		return o.Args[name]
	}
	total := 0
	for _, f := range []struct{ arg, file, absent string }{
		{"meta_data", "meta_data.json", `{"uuid":` + strconv.Quote(o.Ref.Node) + `}`},
		{"network_data", "network_data.json", ""},
		{"user_data", "user_data", ""},
		{"vendor_data", "vendor_data.json", ""},
	} {
		text := get(f.arg)
		given = given || text != "" && f.arg != "meta_data"
		if text == "" {
			text = f.absent
		}
		if text == "" {
			continue
		}
		if f.arg != "user_data" && !json.Valid([]byte(text)) {
			return nil, false, fault.New(fault.Invalid, "make config drive", "%s is not JSON", f.arg).
				WithDetail(&fault.FieldDetail{Field: f.arg})
		}
		if total += len(text); total > maxConfigSize {
			return nil, false, fault.New(fault.TooLarge, "make config drive", "more than %d bytes", maxConfigSize)
		}
		files = append(files, iso.File{Path: "openstack/latest/" + f.file, Data: []byte(text)})
	}
	return files, given, nil
}
