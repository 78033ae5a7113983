package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// wall is by how many seconds Now is ahead of this machine's clock. A test maps the same file and sets it.
var wall = openWall()

func openWall() *atomic.Int64 {
	name, given := syscall.Getenv("WALL_CLOCK_FILE")
	if !given {
		return new(atomic.Int64)
	}
	file, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("open " + name + ": " + err.Error())
	}
	memory, err := syscall.Mmap(file, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map " + name + ": " + err.Error())
	}
	return (*atomic.Int64)(unsafe.Pointer(unsafe.SliceData(memory)))
}
