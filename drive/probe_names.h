// SPDX-License-Identifier: BSD-2-Clause
/*
 * Names for numbers, for people.
 */
#ifndef DRIVE_PROBE_NAMES_H
#define DRIVE_PROBE_NAMES_H

#include <stdbool.h>
#include <stdint.h>

const char *name_class(uint32_t class_code); /* 24 bits; "class 0x..." is the caller's when NULL */
const char *name_cap(uint16_t id, bool extended); /* NULL: not known */
const char *name_virtio_device(unsigned device_id);
const char *name_virtio_structure(uint8_t type);
/* NULL: not known, or not of this device */
const char *name_feature(unsigned device_id, unsigned bit);

#endif
