// SPDX-License-Identifier: BSD-2-Clause
/*
 * VFIO's side of the kernel in the process, see host_kernel.h.
 */
#include "host_kernel_private.h"

#include <sys/eventfd.h>

static void store(void)
{
	memcpy(kernel.stored, kernel.hardware, sizeof kernel.stored);
}

/* What a reset of the kernel's own brings back: what it saved before, whatever that was; and the errors' status is cleared. */
static void restore(void)
{
	uint32_t control = (uint32_t)(kernel.stored[KERNEL_MSIX + PCI_MSIX_FLAGS] | kernel.stored[KERNEL_MSIX + PCI_MSIX_FLAGS + 1] << 8);

	memcpy(kernel.hardware + 4, kernel.stored + 4, KERNEL_PM - 4);
	memcpy(kernel.hardware + KERNEL_EXPRESS, kernel.stored + KERNEL_EXPRESS, 0x20);
	/* Of MSI-X that is off nothing is saved. */
	if (control & PCI_MSIX_FLAGS_ENABLE)
		kernel_set16(KERNEL_MSIX + PCI_MSIX_FLAGS, control & ~(uint32_t)PCI_MSIX_FLAGS_MASKALL);
	for (unsigned i = 0; i < KERNEL_VECTORS && control & PCI_MSIX_FLAGS_ENABLE; i++)
		kernel.messages[i] = kernel.fds[VFIO_PCI_MSIX_IRQ_INDEX][i] >= 0;
	store_le32(kernel.hardware + KERNEL_AER + PCI_ERR_UNCOR_STATUS, 0);
}

/* ---- resets by the kernel ---- */

static int reset(void)
{
	kernel_read_methods();
	if (kernel.link_locked) {
		errno = EAGAIN;
		return -1;
	}
	snprintf(kernel.counts.last_method, sizeof kernel.counts.last_method, "%.*s", (int)strcspn(kernel.methods, " "), kernel.methods);
	kernel.counts.resets++;
	store();
	kernel_power_on();
	restore();
	if (kernel.spoiled[0] && (!strcmp(kernel.spoiled, "all") || strstr(kernel.spoiled, kernel.counts.last_method)))
		kernel_set16(KERNEL_MSIX + PCI_MSIX_FLAGS, kernel_get16(KERNEL_MSIX + PCI_MSIX_FLAGS) | PCI_MSIX_FLAGS_MASKALL);
	return 0;
}

static void set_power(unsigned power)
{
	if (power == kernel.power)
		return;
	if (power) {
		if (kernel.soft_reset)
			store();
		kernel_set16(KERNEL_PM + PCI_PM_CTRL, (kernel_get16(KERNEL_PM + PCI_PM_CTRL) & ~3u) | power);
	} else {
		kernel.counts.power_cycles++;
		if (kernel.soft_reset) {
			kernel_power_on();
			restore();
			if (strstr(kernel.spoiled, "cycle"))
				kernel_set16(KERNEL_MSIX + PCI_MSIX_FLAGS, kernel_get16(KERNEL_MSIX + PCI_MSIX_FLAGS) | PCI_MSIX_FLAGS_MASKALL);
		}
		kernel_set16(KERNEL_PM + PCI_PM_CTRL, kernel_get16(KERNEL_PM + PCI_PM_CTRL) & ~3u);
	}
	kernel.power = power;
}

/* ---- VFIO ---- */

static int open_device(struct host_vfio *vfio, const char *address, int group, struct pintle_error *err)
{
	(void)err;
	assert_string_equal(address, KERNEL_DEVICE);
	assert_int_equal(group, GROUP);
	pthread_mutex_lock(&kernel.lock);
	vfio->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (unsigned i = 0; i < 6; i++)
		kernel.given[i] = load_le32(kernel.hardware + PCI_BASE_ADDRESS_0 + 4 * i);
	kernel.command = 0;
	kernel_read_methods();
	reset();
	kernel_show();
	kernel.counts.opened++;
	pthread_mutex_unlock(&kernel.lock);
	return 0;
}

static void drop(unsigned index)
{
	for (unsigned i = 0; i < KERNEL_VECTORS; i++) {
		if (kernel.fds[index][i] >= 0)
			close(kernel.fds[index][i]);
		kernel.fds[index][i] = -1;
	}
}

/* Nobody maps it any more. */
static void withdraw(void)
{
	assert_int_equal(fcntl(kernel.buffer, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
}

static void close_device(struct host_vfio *vfio)
{
	pthread_mutex_lock(&kernel.lock);
	if (kernel.buffer >= 0 && kernel.dmabuf == KERNEL_DMABUF_WITHDRAW)
		withdraw();
	if (kernel.buffer >= 0)
		close(kernel.buffer);
	kernel.buffer = -1;
	for (unsigned i = 0; i < VFIO_PCI_NUM_IRQS; i++)
		drop(i);
	kernel.msix_on = false;
	if (vfio->fd >= 0)
		close(vfio->fd);
	vfio->fd = -1;
	pthread_mutex_unlock(&kernel.lock);
}

static int map(struct host_vfio *vfio, uint64_t iova, uint64_t size, unsigned access, void *host)
{
	(void)vfio;
	(void)iova;
	(void)size;
	(void)access;
	(void)host;
	pthread_mutex_lock(&kernel.lock);
	kernel.counts.mapped++;
	pthread_mutex_unlock(&kernel.lock);
	return 0;
}

static int unmap(struct host_vfio *vfio, uint64_t iova, uint64_t size)
{
	(void)vfio;
	(void)iova;
	(void)size;
	pthread_mutex_lock(&kernel.lock);
	kernel.counts.mapped--;
	pthread_mutex_unlock(&kernel.lock);
	return 0;
}

static bool decodes(void)
{
	return (kernel_get16(PCI_COMMAND) & PCI_COMMAND_MEMORY) && kernel_has_addresses() && !(kernel_get16(KERNEL_PM + PCI_PM_CTRL) & 3);
}

static ssize_t read_device(const struct host_vfio *vfio, void *data, size_t length, uint64_t at)
{
	uint8_t *bytes = data;

	(void)vfio;
	pthread_mutex_lock(&kernel.lock);
	memset(bytes, 0xff, length);
	if (at >= CONFIG_OFFSET) {
		at -= CONFIG_OFFSET;
		for (size_t i = 0; i < length; i++)
			if (at + i >= PCI_BASE_ADDRESS_0 && at + i < PCI_BASE_ADDRESS_0 + 24)
				bytes[i] = (uint8_t)(kernel.given[(at + i - PCI_BASE_ADDRESS_0) / 4] >> 8 * ((at + i) % 4));
			else if (kernel_now_ms() >= kernel.silent_until)
				bytes[i] = kernel.hardware[at + i];
	} else if (decodes() && kernel_now_ms() >= kernel.silent_until && at + length <= sizeof kernel.registers) {
		memcpy(bytes, kernel.registers + at, length);
	}
	pthread_mutex_unlock(&kernel.lock);
	return (ssize_t)length;
}

static void write_command(uint16_t command)
{
	bool on = command & PCI_COMMAND_MEMORY;
	bool lost = on && (kernel.command & PCI_COMMAND_MEMORY) && !(kernel_get16(PCI_COMMAND) & PCI_COMMAND_MEMORY);

	for (unsigned i = 0; i < MEMORY_BARS; i++)
		lost = lost || load_le32(kernel.hardware + PCI_BASE_ADDRESS_0 + 4 * i) != kernel.given[i];
	for (unsigned i = 0; i < MEMORY_BARS && lost; i++)
		store_le32(kernel.hardware + PCI_BASE_ADDRESS_0 + 4 * i, kernel.given[i]);
	kernel.command = command;
	kernel_set16(PCI_COMMAND, command);
}

static ssize_t write_device(const struct host_vfio *vfio, const void *data, size_t length, uint64_t at)
{
	const uint8_t *bytes = data;
	uint8_t value[4] = { 0 };

	(void)vfio;
	memcpy(value, bytes, min_of(length, sizeof value));
	pthread_mutex_lock(&kernel.lock);
	while (kernel.command_held && at == CONFIG_OFFSET + PCI_COMMAND)
		pthread_cond_wait(&kernel.command_free, &kernel.lock);
	if (kernel_now_ms() < kernel.silent_until) {
		;
	} else if (at < CONFIG_OFFSET) {
		if (decodes() && at + length <= sizeof kernel.registers)
			memcpy(kernel.registers + at, bytes, length);
	} else if (at == CONFIG_OFFSET + PCI_COMMAND) {
		write_command((uint16_t)load_le32(value));
	} else if (at == CONFIG_OFFSET + KERNEL_PM + PCI_PM_CTRL) {
		set_power(value[0] & PCI_PM_CTRL_STATE_MASK);
	} else if (at == CONFIG_OFFSET + KERNEL_EXPRESS + PCI_EXP_DEVCTL) {
		/* The sizes are the kernel's. */
		uint32_t theirs = PCI_EXP_DEVCTL_PAYLOAD | PCI_EXP_DEVCTL_READRQ | PCI_EXP_DEVCTL_BCR_FLR;
		kernel_set16(KERNEL_EXPRESS + PCI_EXP_DEVCTL, (kernel_get16(KERNEL_EXPRESS + PCI_EXP_DEVCTL) & theirs) | (load_le32(value) & ~theirs));
	} else if (at == CONFIG_OFFSET + KERNEL_AER + PCI_ERR_UNCOR_STATUS || at == CONFIG_OFFSET + KERNEL_AER + PCI_ERR_COR_STATUS) {
		uint8_t *status = kernel.hardware + (at - CONFIG_OFFSET);
		store_le32(status, load_le32(status) & ~load_le32(value));
	}
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
	return (ssize_t)length;
}

static int set_irqs(const struct vfio_irq_set *set)
{
	const uint32_t index = set->index, *raw = (const uint32_t *)(const void *)set->data;
	int *fds = kernel.fds[index];

	if (!(set->flags & VFIO_IRQ_SET_ACTION_TRIGGER))
		return 0;
	bool was_on = index == VFIO_PCI_MSIX_IRQ_INDEX && kernel.msix_on;
	if (!set->count) {
		drop(index);
		kernel.msix_on = kernel.msix_on && index != VFIO_PCI_MSIX_IRQ_INDEX;
		if (index == VFIO_PCI_MSIX_IRQ_INDEX)
			kernel_set16(KERNEL_MSIX + PCI_MSIX_FLAGS, kernel_get16(KERNEL_MSIX + PCI_MSIX_FLAGS) & ~(uint32_t)PCI_MSIX_FLAGS_ENABLE);
		return 0;
	}
	for (uint32_t i = set->start; i < set->start + set->count; i++) {
		if (set->flags & VFIO_IRQ_SET_DATA_NONE) {
			uint64_t one = 1;
			if (fds[i] >= 0 && write(fds[i], &one, sizeof one) < 0)
				return -1;
			continue;
		}
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = (int)raw[i - set->start] < 0 ? -1 : fcntl((int)raw[i - set->start], F_DUPFD_CLOEXEC, 0);
		/* The message goes to wherever the table is said to be. */
		if (index == VFIO_PCI_MSIX_IRQ_INDEX)
			kernel.messages[i] = fds[i] >= 0 && kernel_has_addresses();
	}
	/* Once: that it is off in the device by now is nothing that the kernel looks at. */
	if (index == VFIO_PCI_MSIX_IRQ_INDEX && !was_on && (set->flags & VFIO_IRQ_SET_DATA_EVENTFD)) {
		kernel_set16(KERNEL_MSIX + PCI_MSIX_FLAGS, kernel_get16(KERNEL_MSIX + PCI_MSIX_FLAGS) | PCI_MSIX_FLAGS_ENABLE);
		kernel.msix_on = true;
	}
	return 0;
}

struct export_order {
	uint32_t argsz, feature; /* struct vfio_device_feature */
	/* struct vfio_device_feature_dma_buf, which Linux has since 6.19, with one range */
	uint32_t region, open_flags, flags, ranges;
	uint64_t offset, length;
};

/* A page of BAR 0: memory plays it. */
static int give_out(const struct export_order *order)
{
	errno = EINVAL;
	if (order->region || order->flags || order->ranges != 1 || order->offset % 4096 || order->length != 4096 || order->offset + order->length > KERNEL_BAR_SIZE ||
	    kernel.dmabuf < KERNEL_DMABUF_EXPORT)
		return -1;
	if (kernel.dmabuf == KERNEL_DMABUF_EXPORT)
		return eventfd(0, EFD_CLOEXEC);
	assert_int_equal(kernel.buffer, -1);
	kernel.buffer = memfd_create("dma-buf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(kernel.buffer, (off_t)order->length), 0);
	if (!decodes())
		withdraw();
	return fcntl(kernel.buffer, F_DUPFD_CLOEXEC, 0);
}

static int feature(const struct vfio_device_feature *feature)
{
	errno = ENOTTY;
	if ((feature->flags & VFIO_DEVICE_FEATURE_MASK) != 11 || !(feature->flags & VFIO_DEVICE_FEATURE_GET) || kernel.dmabuf == KERNEL_DMABUF_NONE)
		return -1;
	if (feature->flags & VFIO_DEVICE_FEATURE_PROBE)
		return 0;
	errno = EINVAL;
	return feature->argsz == sizeof(struct export_order) ? give_out((const void *)feature) : -1;
}

static int region_info(struct vfio_region_info *info)
{
	bool config = info->index == VFIO_PCI_CONFIG_REGION_INDEX;

	info->size = config ? sizeof kernel.hardware : info->index == 0 ? KERNEL_BAR_SIZE : 0;
	info->offset = config ? CONFIG_OFFSET : 0;
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | (info->index == 0 && kernel.dmabuf > KERNEL_DMABUF_FEATURE ? VFIO_REGION_INFO_FLAG_MMAP : 0u);
	return 0;
}

static int irq_info(struct vfio_irq_info *info)
{
	info->count = info->index == VFIO_PCI_MSIX_IRQ_INDEX ? KERNEL_VECTORS : info->index == VFIO_PCI_ERR_IRQ_INDEX || info->index == VFIO_PCI_REQ_IRQ_INDEX;
	info->flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
	return 0;
}

static int control_device(const struct host_vfio *vfio, unsigned long request, void *argument)
{
	int r = -1;

	(void)vfio;
	pthread_mutex_lock(&kernel.lock);
	errno = ENOTTY;
	if (request == VFIO_DEVICE_GET_INFO) {
		((struct vfio_device_info *)argument)->flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
		r = 0;
	} else if (request == VFIO_DEVICE_GET_REGION_INFO) {
		r = region_info(argument);
	} else if (request == VFIO_DEVICE_GET_IRQ_INFO) {
		r = irq_info(argument);
	} else if (request == VFIO_DEVICE_SET_IRQS) {
		r = set_irqs(argument);
	} else if (request == VFIO_DEVICE_RESET) {
		r = reset();
	} else if (request == VFIO_DEVICE_PCI_HOT_RESET) {
		errno = EPERM;
	} else if (request == VFIO_DEVICE_FEATURE) {
		r = feature(argument);
	}
	int error = errno;
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
	errno = error;
	return r;
}

const struct host_container_ops kernel_container = {
	"in process", open_device, map, unmap, close_device, read_device, write_device, control_device,
};
