// SPDX-License-Identifier: BSD-2-Clause
/*
 * Around the played Xen of xen_rig.h: the server under test and its loop, and the parts of libxl and of a guest's front end that a back end meets.
 */
#ifndef XEN_GUEST_RIG_H
#define XEN_GUEST_RIG_H

#include "xen_rig.h"

static struct loop *rig_loop;
static struct xen_server *rig_server;
static struct xen_device *rig_device[2];

/* ---- the loop ---- */

/* Turns the loop until it holds. A bound for a machine that is busy with something else; nothing is timed. */
#define until(condition)                                                                          \
	do {                                                                                      \
		for (unsigned turns_ = 0; turns_ < 3000 && !(condition); turns_++)                \
			loop_turn(rig_loop, 10);                                                  \
		assert_true(condition);                                                           \
	} while (0)

/* What would have happened by now. */
static inline void settle(void)
{
	for (unsigned i = 0; i < 20; i++)
		loop_turn(rig_loop, 2);
}

static inline enum xen_device_state state_of(unsigned device)
{
	struct xen_device_status status;

	xen_device_status(rig_device[device], &status);
	return status.state;
}

static inline struct xen_device_status status_of(unsigned device)
{
	struct xen_device_status status;

	xen_device_status(rig_device[device], &status);
	return status;
}

static inline bool is_offered(unsigned device)
{
	struct stat st;

	return !lstat(rig_in("sys/bus/pci/drivers/pciback/%s", rig_addresses[device]), &st);
}

/* ---- the toolstack ---- */

__attribute__((format(printf, 2, 3))) static void set_node(const char *value, const char *format, ...)
{
	char path[128];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path, sizeof path, format, arguments);
	va_end(arguments);
	pthread_mutex_lock(&X.lock);
	put_node(path, value, strlen(value));
	pthread_mutex_unlock(&X.lock);
}

__attribute__((format(printf, 1, 2))) static const char *get_node(const char *format, ...)
{
	static char value[XEN_STORE_MAX];
	char path[128];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path, sizeof path, format, arguments);
	va_end(arguments);
	pthread_mutex_lock(&X.lock);
	int i = find_node(path);
	snprintf(value, sizeof value, "%.4000s", i < 0 ? "" : X.nodes[i].value);
	pthread_mutex_unlock(&X.lock);
	return value;
}

#define BACK(domid, key) XEN_BACKENDS "/%u/0/" key, domid
#define FRONT(domid, key) "/local/domain/%u/device/pci/0/" key, domid
#define back_state(domid) atoi(get_node(BACK(domid, "state")))

static inline void list_device(unsigned domid, unsigned index, unsigned device)
{
	set_node(rig_addresses[device], BACK(domid, "dev-%u"), index);
	set_node("msitranslate=0,power_mgmt=0,permissive=0", BACK(domid, "opts-%u"), index);
	set_node("1", BACK(domid, "state-%u"), index);
}

/* What `xl create` does. Xen refuses a device whose function mask is set: it takes that as "not reset". */
static inline int x_assign(unsigned device)
{
	if (hw(device, RIG_MSIX + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_MASKALL)
		return -EBUSY;
	X.guest_maskall[device] = false;
	return 0;
}

static inline void create_guest(unsigned domid, unsigned devices)
{
	char text[64];
	unsigned count = 0;

	X.guests[domid] = (struct rig_guest){ .alive = true, .page = calloc(1, 4096) };
	set_node("0", "/local/domain/%u/domid", domid);
	set_node(X.hvm ? "hvm" : "pv", "/libxl/%u/type", domid);
	snprintf(text, sizeof text, "/local/domain/%u/device/pci/0", domid);
	set_node("1", FRONT(domid, "state"));
	for (unsigned d = 0; d < 2; d++)
		if (devices & 1u << d)
			list_device(domid, count++, d);
	snprintf(text, sizeof text, "%u", count);
	set_node(text, BACK(domid, "num_devs"));
	set_node("1", BACK(domid, "online"));
	set_node("1", BACK(domid, "state"));
	snprintf(text, sizeof text, "/local/domain/%u/device/pci/0", domid);
	set_node(text, BACK(domid, "frontend"));
}

/* The domain ends: Xen unmaps what it had, unless a device has been taken from it before. */
static inline void kill_guest(unsigned domid)
{
	pthread_mutex_lock(&X.lock);
	X.guests[domid].alive = false;
	for (int i = 24; i < PIRQS; i++)
		if (X.guests[domid].owner[i]) {
			X.used[X.guests[domid].owner[i] - 1]--;
			X.guests[domid].owner[i] = 0;
		}
	pthread_mutex_unlock(&X.lock);
}

static inline void remove_guest(unsigned domid)
{
	char path[64];

	pthread_mutex_lock(&X.lock);
	snprintf(path, sizeof path, XEN_BACKENDS "/%u", domid);
	drop_nodes(path);
	snprintf(path, sizeof path, "/local/domain/%u", domid);
	drop_nodes(path);
	fire("@releaseDomain");
	pthread_mutex_unlock(&X.lock);
}

static inline void free_page(unsigned domid)
{
	until(!X.guests[domid].mapped);
	free(X.guests[domid].page);
	X.guests[domid].page = NULL;
}

/* ---- the front end ---- */

static inline void publish(unsigned domid)
{
	char text[16];

	X.guests[domid].port_open = true;
	snprintf(text, sizeof text, "%u", domid + 100);
	set_node(text, FRONT(domid, "pci-op-ref"));
	snprintf(text, sizeof text, "%u", domid + 200);
	set_node(text, FRONT(domid, "event-channel"));
	set_node("7", FRONT(domid, "magic"));
	set_node("3", FRONT(domid, "state"));
}

static inline void connect_guest(unsigned domid)
{
	until(back_state(domid) == XENBUS_INITIALISED);
	publish(domid);
	until(back_state(domid) == XENBUS_CONNECTED);
	set_node("4", FRONT(domid, "state"));
	for (unsigned d = 0; d < 2; d++)
		if (status_of(d).domid == domid)
			forget_reset(d);
	X.guests[domid].page->flags |= XEN_FLAG_AER_HANDLER;
}

static inline void raise_event(unsigned domid)
{
	pthread_mutex_lock(&X.lock);
	X.guests[domid].pending = true;
	eventfd_write(X.event_fd, 1);
	pthread_mutex_unlock(&X.lock);
}

static inline struct xen_op *begin_op(unsigned domid, uint32_t command, uint32_t devfn)
{
	struct xen_op *op = &X.guests[domid].page->op;

	op->command = command;
	op->domain = op->bus = 0;
	op->devfn = devfn;
	return op;
}

static inline void send_op(unsigned domid)
{
	__atomic_or_fetch(&X.guests[domid].page->flags, XEN_FLAG_F_ACTIVE, __ATOMIC_SEQ_CST);
	raise_event(domid);
}

static inline bool answered(unsigned domid)
{
	return !(__atomic_load_n(&X.guests[domid].page->flags, __ATOMIC_SEQ_CST) & XEN_FLAG_F_ACTIVE);
}

static inline int conf(unsigned domid, uint32_t devfn, uint32_t at, uint32_t width, bool write, uint32_t *value)
{
	struct xen_op *op = begin_op(domid, write ? XEN_OP_CONF_WRITE : XEN_OP_CONF_READ, devfn);

	op->offset = (int32_t)at;
	op->size = (int32_t)width;
	op->value = *value;
	send_op(domid);
	until(answered(domid));
	*value = op->value;
	return op->error;
}

static inline int enable_msix(unsigned domid, uint32_t devfn, unsigned count)
{
	uint32_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	assert_int_equal(conf(domid, devfn, PCI_COMMAND, 2, true, &command), XEN_OK);
	struct xen_op *op = begin_op(domid, XEN_OP_ENABLE_MSIX, devfn);
	op->value = count;
	for (unsigned i = 0; i < count && i < XEN_VECTORS_MAX; i++)
		op->entries[i] = (struct xen_vector){ 0xffff, (uint16_t)i };
	send_op(domid);
	until(answered(domid));
	return op->error;
}

static inline int simple_op(unsigned domid, uint32_t devfn, uint32_t command)
{
	struct xen_op *op = begin_op(domid, command, devfn);

	op->value = 0;
	send_op(domid);
	until(answered(domid));
	return op->error;
}

/* Do interrupts of this device come through to this guest? Bound as asked, enabled, and no mask-all in the hardware or in Xen's picture. */
static inline bool interrupts_come(unsigned domid, unsigned device, unsigned vectors)
{
	unsigned bound = 0;

	for (int i = 24; i < PIRQS; i++)
		bound += X.guests[domid].owner[i] == (int)device + 1;
	uint32_t flags = hw(device, RIG_MSIX + PCI_MSIX_FLAGS);
	return bound == vectors && flags & PCI_MSIX_FLAGS_ENABLE && !(flags & PCI_MSIX_FLAGS_MASKALL) && !X.guest_maskall[device];
}

/* ---- a server ---- */

static inline void start_server(enum xen_slots slots, uint64_t check_ns)
{
	struct xen_server_options options = { .calls = &played, .xen = &X, .slots = slots, .state = rig_state() };

	assert_int_equal(xen_server_create(&rig_server, &options, rig_loop, NULL), 0);
	for (unsigned d = 0; d < 2; d++)
		assert_int_equal(xen_server_add(rig_server, &rig_device[d],
						&(struct xen_device_options){ .name = d ? "d1" : "d0", .address = rig_addresses[d], .root = rig_sys(), .check_ns = check_ns }, NULL), 0);
	assert_int_equal(xen_server_start(rig_server, NULL), 0);
}

static bool rig_stopped;
static void on_rig_stopped(void *context)
{
	(void)context;
	rig_stopped = true;
}

static inline void stop_server(bool keep)
{
	rig_stopped = false;
	xen_server_stop(rig_server, keep, on_rig_stopped, NULL);
	until(rig_stopped);
	xen_server_destroy(rig_server);
	rig_server = NULL;
}

static inline int rig_setup(void **state)
{
	char folder[2 * PATH_MAX + 256];

	(void)state;
	memset(&X, 0, sizeof X);
	pthread_mutex_init(&X.lock, NULL);
	pthread_cond_init(&X.moved, NULL);
	X.nodes = calloc(NODES, sizeof *X.nodes);
	X.watch_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	X.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rig_begin();
	for (unsigned d = 0; d < 2; d++) {
		snprintf(config_path[d], PATH_MAX, "%.4000s/sys/bus/pci/devices/%s/config", rig_root, rig_addresses[d]);
		snprintf(reset_path[d], PATH_MAX, "%.4000s/sys/bus/pci/devices/%s/reset", rig_root, rig_addresses[d]);
	}
	set_hw(0, PCI_COMMAND, 0);
	rig_folders(rig_in("sys/bus/pci/drivers/.kernel"));
	rig_folders(rig_in("sys/bus/pci/drivers/pciback"));
	rig_folders(rig_in("run/pintle"));
	snprintf(folder, sizeof folder, "cp -a %s/sys/bus/pci/devices/" RIG_ADDRESS " %s/sys/bus/pci/devices/" OTHER_ADDRESS, rig_root, rig_root);
	if (system(folder) != 0) /* a test's own folder */
		return -1;
	log_set_level(getenv("XEN_RIG_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	return loop_create(&rig_loop, "test", NULL);
}

static inline int rig_teardown(void **state)
{
	(void)state;
	X.map_blocks = 0;
	pthread_cond_broadcast(&X.moved);
	if (rig_server)
		stop_server(true);
	helper_drain();
	loop_destroy(rig_loop);
	for (unsigned i = 1; i <= GUESTS; i++)
		free(X.guests[i].page);
	free(X.nodes);
	close(X.watch_fd);
	close(X.event_fd);
	rig_end();
	return 0;
}

/* ---- what is asked of a device, and its end ---- */

static int result; /* of the last one */
static unsigned results;

static inline void on_done(void *context, int r)
{
	(void)context;
	result = r;
	results++;
}

#define until_done(call)                       \
	do {                                   \
		unsigned before_ = results;    \
		call;                          \
		until(results == before_ + 1); \
	} while (0)

#endif
