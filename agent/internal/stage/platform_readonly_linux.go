package stage

import "golang.org/x/sys/unix"

func mountedReadOnly(st *unix.Statfs_t) bool { return st.Flags&unix.ST_RDONLY != 0 }
