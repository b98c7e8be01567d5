// SPDX-License-Identifier: BSD-2-Clause
/*
 * The road's limits, each with its reason; the first four are told to the client in VERSION.
 */
#ifndef ROAD_VFIO_USER_LIMITS_H
#define ROAD_VFIO_USER_LIMITS_H

#include "memory/dma.h"

/* The kernel passes at most this many descriptors with one message (SCM_MAX_FD). */
#define VFU_MESSAGE_FDS 253u
/* Longest data of a region or DMA access; the specification's default. */
#define VFU_DATA_MAX (1u << 20)
/* Smallest page that may be mapped. */
#define VFU_PAGE_SIZE 4096u
/* The specification's default. More are taken (DMA_MAPPINGS_MAX), because not every client counts. */
#define VFU_DMA_MAPS 65535u

/* Longest message: data and what stands before it. */
#define VFU_MESSAGE_MAX (VFU_DATA_MAX + 4096u)
/* Longest capabilities string of VERSION: a client needs some hundred bytes. */
#define VFU_VERSION_MAX 4096u
/* QEMU sends the reply to a DMA read with one sendmsg and never finishes a short one: 208 KiB passed, 256 KiB did not. */
#define VFU_DMA_CHUNK (128u << 10)
/* A client that sends and does not read: so much is kept for it, then its connection ends. */
#define VFU_OUT_MAX (8u << 20)
/* The same for descriptors: they count against this process until the client takes them. A client that waits for its replies never has more than one message's. */
#define VFU_OUT_FDS_MAX 1024u
/* Requests that wait for the function to settle; beyond that the socket is not read until some are answered. */
#define VFU_PENDING_MAX 256u
/* The same for DMA changes whose commit has not settled: far more than a virtual IOMMU's transaction has. */
#define VFU_UNSETTLED_MAX 16384u
/* Entries of one REGION_WRITE_MULTI: what fits the data limit is far more than any client sends. */
#define VFU_MULTI_MAX 1024u
/* Messages handled in one unit, so that one client cannot keep the owner thread from the others. */
#define VFU_MESSAGES_PER_UNIT 256u
/* First size of a connection's receive buffer; grown for a longer message and given back after it. */
#define VFU_BUFFER_SIZE 4096u

#endif
