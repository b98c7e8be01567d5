// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vfio-user protocol on the wire, version 0.0, as QEMU's docs/interop/vfio-user.rst defines it.
 *
 * All fields are in the byte order of the host; every structure begins at the offset the specification gives and
 * has no padding of its own. Flags and structures that the protocol shares with VFIO (region information, interrupt
 * information, SET_IRQS) are those of <linux/vfio.h>.
 */
#ifndef PINTLE_VFIO_USER_H
#define PINTLE_VFIO_USER_H

#include <stdint.h>

/* Commands. Both sides send commands: DMA_READ and DMA_WRITE come from the server. */
enum vfio_user_command {
	VFIO_USER_VERSION = 1,
	VFIO_USER_DMA_MAP = 2,
	VFIO_USER_DMA_UNMAP = 3,
	VFIO_USER_DEVICE_GET_INFO = 4,
	VFIO_USER_DEVICE_GET_REGION_INFO = 5,
	VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6,
	VFIO_USER_DEVICE_GET_IRQ_INFO = 7,
	VFIO_USER_DEVICE_SET_IRQS = 8,
	VFIO_USER_REGION_READ = 9,
	VFIO_USER_REGION_WRITE = 10,
	VFIO_USER_DMA_READ = 11,
	VFIO_USER_DMA_WRITE = 12,
	VFIO_USER_DEVICE_RESET = 13,
	/* 14 was DIRTY_PAGES in earlier drafts and is not used. */
	VFIO_USER_REGION_WRITE_MULTI = 15,
	VFIO_USER_DEVICE_FEATURE = 16,
	VFIO_USER_MIG_DATA_READ = 17,
	VFIO_USER_MIG_DATA_WRITE = 18,
};

/* vfio_user_header.flags */
#define VFIO_USER_FLAG_TYPE_MASK UINT32_C(0xf)
#define VFIO_USER_FLAG_TYPE_COMMAND UINT32_C(0x0)
#define VFIO_USER_FLAG_TYPE_REPLY UINT32_C(0x1)
#define VFIO_USER_FLAG_NO_REPLY UINT32_C(0x10)
#define VFIO_USER_FLAG_ERROR UINT32_C(0x20)

struct vfio_user_header {
	uint16_t message_id;
	uint16_t command;
	uint32_t message_size; /* bytes, this header included */
	uint32_t flags;
	uint32_t error; /* an errno of Linux, valid with VFIO_USER_FLAG_ERROR */
};

/* VERSION: followed by a JSON object and its NUL, or by nothing. */
struct vfio_user_version {
	uint16_t major;
	uint16_t minor;
};

/* vfio_user_dma_map.flags */
#define VFIO_USER_DMA_READ_ALLOWED UINT32_C(0x1)
#define VFIO_USER_DMA_WRITE_ALLOWED UINT32_C(0x2)

struct vfio_user_dma_map {
	uint32_t argsz;
	uint32_t flags;
	uint64_t offset; /* bytes into the file that came with the message */
	uint64_t address; /* I/O virtual address */
	uint64_t size;
};

/* vfio_user_dma_unmap.flags */
#define VFIO_USER_DMA_UNMAP_DIRTY_BITMAP UINT32_C(0x1)
#define VFIO_USER_DMA_UNMAP_ALL UINT32_C(0x2)

struct vfio_user_dma_unmap {
	uint32_t argsz;
	uint32_t flags;
	uint64_t address;
	uint64_t size;
};

/* DEVICE_GET_INFO: flags are VFIO_DEVICE_FLAGS_* */
struct vfio_user_device_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t num_regions;
	uint32_t num_irqs;
};

/* DEVICE_GET_REGION_IO_FDS, the request and the head of its reply */
struct vfio_user_region_io_fds {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};

#define VFIO_USER_IO_FD_TYPE_IOEVENTFD 0u
#define VFIO_USER_IO_FD_TYPE_IOREGIONFD 1u

/* vfio_user_sub_region_ioeventfd.flags: those of KVM_IOEVENTFD */
#define VFIO_USER_IOEVENTFD_DATAMATCH UINT32_C(0x1)
#define VFIO_USER_IOEVENTFD_PIO UINT32_C(0x2)

struct vfio_user_sub_region_ioeventfd {
	uint64_t offset; /* bytes into the region */
	uint64_t size;
	uint32_t fd_index; /* into the descriptors of the reply */
	uint32_t type;
	uint32_t flags;
	uint32_t padding;
	uint64_t datamatch;
};

/* REGION_READ, REGION_WRITE: data follows in a write and in the reply to a read */
struct vfio_user_region_access {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
};

/* REGION_WRITE_MULTI: count entries follow the first word */
#define VFIO_USER_WRITE_MULTI_DATA 8u

struct vfio_user_write_multi_entry {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
	uint8_t data[VFIO_USER_WRITE_MULTI_DATA];
};

struct vfio_user_write_multi {
	uint64_t count;
};

/* DMA_READ, DMA_WRITE: data follows in a write and in the reply to a read */
struct vfio_user_dma_access {
	uint64_t address;
	uint64_t count;
};

#endif
