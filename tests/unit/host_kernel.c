// SPDX-License-Identifier: BSD-2-Clause
/*
 * The device, its files in sysfs, and what happens to it, see host_kernel.h.
 */
#include "host_kernel_private.h"

#include <ftw.h>
#include <sys/stat.h>
#include <time.h>

struct kernel kernel = { .lock = PTHREAD_MUTEX_INITIALIZER, .command_free = PTHREAD_COND_INITIALIZER };

uint64_t kernel_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void sleep_ms(unsigned milliseconds)
{
	nanosleep(&(struct timespec){ .tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000 }, NULL);
}

/* ---- files ---- */

const char *kernel_path(const char *name)
{
	static _Thread_local char text[320];

	snprintf(text, sizeof text, "%s/bus/pci/devices/" KERNEL_DEVICE "/%s", kernel.paths.sysfs, name);
	return text;
}

static void folders(const char *name)
{
	char part[320];

	for (size_t i = 1; i <= strlen(name); i++) {
		if (name[i] && name[i] != '/')
			continue;
		memcpy(part, name, i);
		part[i] = 0;
		mkdir(part, 0755);
	}
}

static void put(const char *name, const char *text)
{
	FILE *file = fopen(name, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

/* sysfs `config` asks the device. */
void kernel_show(void)
{
	uint8_t ones[sizeof kernel.hardware];
	bool silent = kernel_now_ms() < kernel.silent_until;

	memset(ones, 0xff, sizeof ones);
	assert_int_equal(pwrite(kernel.config_file, silent ? ones : kernel.hardware, sizeof kernel.hardware, 0), sizeof kernel.hardware);
}

static void show_errors(void)
{
	static const char *const names[] = { "aer_dev_correctable", "aer_dev_nonfatal", "aer_dev_fatal" };
	static const char *const totals[] = { "COR", "NONFATAL", "FATAL" };
	char text[64];

	/* In one piece, whoever reads meanwhile. */
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		int length = snprintf(text, sizeof text, "RxErr 0\nTOTAL_ERR_%s %09llu\n", totals[i], (unsigned long long)kernel.errors[i]);
		int fd = open(kernel_path(names[i]), O_WRONLY | O_CREAT, 0600);

		assert_int_equal(pwrite(fd, text, (size_t)length, 0), length);
		close(fd);
	}
}

static void make_files(const char *methods)
{
	char name[320];
	const char *folder = getenv("TMPDIR");

	snprintf(kernel.paths.root, sizeof kernel.paths.root, "%s/pintle-kernel-XXXXXX", folder ? folder : "/tmp");
	assert_non_null(mkdtemp(kernel.paths.root));
	snprintf(kernel.paths.sysfs, sizeof kernel.paths.sysfs, "%s/sys", kernel.paths.root);
	snprintf(kernel.paths.dev, sizeof kernel.paths.dev, "%s/dev", kernel.paths.root);
	snprintf(kernel.paths.records, sizeof kernel.paths.records, "%s/run/host", kernel.paths.root);
	snprintf(name, sizeof name, "%s/vfio", kernel.paths.dev);
	folders(name);
	strcat(name, "/vfio");
	put(name, "");
	snprintf(name, sizeof name, "%s/kernel/iommu_groups/%d/devices/" KERNEL_DEVICE, kernel.paths.sysfs, GROUP);
	folders(name);
	snprintf(name, sizeof name, "%s/bus/pci/drivers/vfio-pci", kernel.paths.sysfs);
	folders(name);
	folders(kernel_path("."));
	assert_int_equal(symlink(name, kernel_path("driver")), 0);
	snprintf(name, sizeof name, "%s/kernel/iommu_groups/%d", kernel.paths.sysfs, GROUP);
	assert_int_equal(symlink(name, kernel_path("iommu_group")), 0);
	put(kernel_path("vendor"), "0x1b36\n");
	put(kernel_path("device"), "0x0010\n");
	put(kernel_path("subsystem_vendor"), "0x1af4\n");
	put(kernel_path("subsystem_device"), "0x1100\n");
	put(kernel_path("class"), "0x018000\n");
	put(kernel_path("driver_override"), "vfio-pci\n");
	put(kernel_path("reset_method"), methods);
	put(kernel_path("resource"), "0x00000008fe000000 0x00000008fe003fff 0x0000000000140204\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n");
	show_errors();
	kernel.config_file = open(kernel_path("config"), O_WRONLY | O_CREAT, 0600);
	assert_true(kernel.config_file >= 0);
}

static int remove_one(const char *name, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(name);
}

/* ---- the device ---- */

void kernel_set16(uint32_t at, uint32_t value)
{
	kernel.hardware[at] = (uint8_t)value;
	kernel.hardware[at + 1] = (uint8_t)(value >> 8);
}

uint32_t kernel_get16(uint32_t at)
{
	return (uint32_t)(kernel.hardware[at] | kernel.hardware[at + 1] << 8);
}

void kernel_power_on(void)
{
	kernel_set16(PCI_COMMAND, 0);
	store_le32(kernel.hardware + PCI_BASE_ADDRESS_0, KERNEL_BAR0 & 0xf);
	store_le32(kernel.hardware + PCI_BASE_ADDRESS_1, 0);
	kernel_set16(KERNEL_MSIX + PCI_MSIX_FLAGS, KERNEL_VECTORS - 1);
	kernel_set16(KERNEL_EXPRESS + PCI_EXP_DEVCTL, 0);
	kernel_set16(KERNEL_PM + PCI_PM_CTRL, kernel.soft_reset ? 0 : PCI_PM_CTRL_NO_SOFT_RESET);
	memset(kernel.registers, 0, sizeof kernel.registers);
	memset(kernel.messages, 0, sizeof kernel.messages);
}

static void make_device(void)
{
	uint8_t *h = kernel.hardware;

	memset(h, 0, sizeof kernel.hardware);
	kernel_set16(PCI_VENDOR_ID, 0x1b36);
	kernel_set16(PCI_DEVICE_ID, 0x0010);
	kernel_set16(PCI_STATUS, PCI_STATUS_CAP_LIST);
	h[PCI_CAPABILITY_LIST] = KERNEL_PM;
	memcpy(h + KERNEL_PM, (uint8_t[]){ PCI_CAP_ID_PM, KERNEL_MSIX, 3 }, 3);
	memcpy(h + KERNEL_MSIX, (uint8_t[]){ PCI_CAP_ID_MSIX, KERNEL_EXPRESS }, 2);
	store_le32(h + KERNEL_MSIX + PCI_MSIX_TABLE, 0x2000);
	store_le32(h + KERNEL_MSIX + PCI_MSIX_PBA, 0x3000);
	memcpy(h + KERNEL_EXPRESS, (uint8_t[]){ PCI_CAP_ID_EXP, 0, 2 }, 3);
	store_le32(h + KERNEL_AER, PCI_EXT_CAP_ID_ERR | 1u << 16);
	store_le32(h + KERNEL_AER + PCI_ERR_UNCOR_SEVER, PCI_ERR_UNC_DLP);
	kernel_power_on();
	store_le32(h + PCI_BASE_ADDRESS_0, KERNEL_BAR0);
	store_le32(h + PCI_BASE_ADDRESS_1, KERNEL_BAR0_HIGH);
	kernel_set16(KERNEL_EXPRESS + PCI_EXP_DEVCTL, 0x202f); /* errors reported, packets of 256 bytes */
}

bool kernel_has_addresses(void)
{
	return !memcmp(kernel.hardware + PCI_BASE_ADDRESS_0, (uint8_t[]){ 4, 0, 0, 0xfe, KERNEL_BAR0_HIGH, 0, 0, 0 }, 8);
}

/* What was written to sysfs since the last time; a file keeps what a shorter text leaves of a longer one, so that it is emptied. */
void kernel_read_methods(void)
{
	char record[320], text[sizeof kernel.methods] = "";
	bool all;
	int fd = open(kernel_path("reset_method"), O_RDWR);

	if (read(fd, text, sizeof text - 1) > 0 && text[0]) {
		text[strcspn(text, "\n")] = 0;
		snprintf(kernel.methods, sizeof kernel.methods, "%s", text);
		all = strchr(text, ' ');
		snprintf(record, sizeof record, "%s/" KERNEL_DEVICE ".reset_method", kernel.paths.records);
		int kept = open(record, O_RDONLY);
		char first = 0;
		if (!all && (kept < 0 || read(kept, &first, 1) != 1 || first == ' '))
			kernel.counts.recorded = false;
		if (kept >= 0)
			close(kept);
	}
	assert_int_equal(ftruncate(fd, 0), 0);
	close(fd);
}

/* ---- the test's hands ---- */

const struct kernel_paths *kernel_begin(bool soft_reset, const char *methods)
{
	pthread_mutex_lock(&kernel.lock);
	kernel.soft_reset = soft_reset;
	kernel.power = 0;
	kernel.spoiled[0] = 0;
	kernel.silent_until = 0;
	kernel.command = 0;
	memset(kernel.errors, 0, sizeof kernel.errors);
	kernel.counts = (struct kernel_counts){ .recorded = true };
	kernel.dmabuf = KERNEL_DMABUF_NONE;
	kernel.buffer = -1;
	for (unsigned i = 0; i < VFIO_PCI_NUM_IRQS; i++)
		for (unsigned v = 0; v < KERNEL_VECTORS; v++)
			kernel.fds[i][v] = -1;
	make_files(methods);
	make_device();
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
	return &kernel.paths;
}

static void await_recovery(void)
{
	if (kernel.recovering)
		pthread_join(kernel.recovery, NULL);
	kernel.recovering = false;
}

void kernel_end(void)
{
	await_recovery();
	close(kernel.config_file);
	kernel_remove(kernel.paths.root);
}

void kernel_remove(const char *folder)
{
	assert_int_equal(nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *kernel_methods(void)
{
	pthread_mutex_lock(&kernel.lock);
	kernel_read_methods();
	pthread_mutex_unlock(&kernel.lock);
	return kernel.methods;
}

void kernel_show_methods(void)
{
	pthread_mutex_lock(&kernel.lock);
	put(kernel_path("reset_method"), kernel.methods);
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_reset_behind(void)
{
	pthread_mutex_lock(&kernel.lock);
	kernel_power_on();
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_lose_bars(void)
{
	pthread_mutex_lock(&kernel.lock);
	store_le32(kernel.hardware + PCI_BASE_ADDRESS_0, KERNEL_BAR0 & 0xf);
	store_le32(kernel.hardware + PCI_BASE_ADDRESS_1, 0);
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_sleep_behind(void)
{
	pthread_mutex_lock(&kernel.lock);
	kernel_set16(KERNEL_PM + PCI_PM_CTRL, kernel_get16(KERNEL_PM + PCI_PM_CTRL) | 3);
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_hold_command(bool held)
{
	pthread_mutex_lock(&kernel.lock);
	kernel.command_held = held;
	pthread_cond_broadcast(&kernel.command_free);
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_be_silent(unsigned milliseconds)
{
	pthread_mutex_lock(&kernel.lock);
	kernel.silent_until = kernel_now_ms() + milliseconds;
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_spoil(const char *method)
{
	pthread_mutex_lock(&kernel.lock);
	snprintf(kernel.spoiled, sizeof kernel.spoiled, "%s", method ? method : "");
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_set_dmabuf(enum kernel_dmabuf dmabuf)
{
	pthread_mutex_lock(&kernel.lock);
	kernel.dmabuf = dmabuf;
	pthread_mutex_unlock(&kernel.lock);
}

static void tell(unsigned index)
{
	uint64_t one = 1;

	if (kernel.fds[index][0] >= 0)
		assert_int_equal(write(kernel.fds[index][0], &one, sizeof one), sizeof one);
}

static void *recover(void *argument)
{
	(void)argument;
	sleep_ms(LINK_RESET_MS);
	pthread_mutex_lock(&kernel.lock);
	kernel_power_on();
	kernel.link_locked = true;
	kernel.silent_until = kernel_now_ms() + LINK_RESET_MS;
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
	sleep_ms(LINK_RESET_MS);
	pthread_mutex_lock(&kernel.lock);
	kernel.link_locked = false;
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
	return NULL;
}

void kernel_error(enum kernel_error error)
{
	await_recovery();
	pthread_mutex_lock(&kernel.lock);
	/* A device that does not report any says nothing. */
	if (kernel_get16(KERNEL_EXPRESS + PCI_EXP_DEVCTL) & PCI_EXP_DEVCTL_FERE) {
		/* Of one that it could not read the kernel counts none. */
		if (error != KERNEL_FATAL)
			kernel.errors[error]++;
		if (error == KERNEL_FATAL)
			store_le32(kernel.hardware + KERNEL_AER + PCI_ERR_UNCOR_STATUS, PCI_ERR_UNC_DLP);
		show_errors();
		if (error != KERNEL_CORRECTED)
			tell(VFIO_PCI_ERR_IRQ_INDEX);
		if (error == KERNEL_FATAL) {
			kernel.recovering = true;
			assert_int_equal(pthread_create(&kernel.recovery, NULL, recover, NULL), 0);
		}
	}
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_request(void)
{
	pthread_mutex_lock(&kernel.lock);
	tell(VFIO_PCI_REQ_IRQ_INDEX);
	pthread_mutex_unlock(&kernel.lock);
}

bool kernel_fire(unsigned vector)
{
	bool out;

	pthread_mutex_lock(&kernel.lock);
	int fd = kernel.fds[VFIO_PCI_MSIX_IRQ_INDEX][vector];
	uint64_t one = 1;
	out = (kernel_get16(PCI_COMMAND) & PCI_COMMAND_MASTER) && (kernel_get16(KERNEL_MSIX + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_ENABLE) && kernel.messages[vector] && fd >= 0 &&
	      kernel_now_ms() >= kernel.silent_until && write(fd, &one, sizeof one) == sizeof one;
	pthread_mutex_unlock(&kernel.lock);
	return out;
}

uint32_t kernel_config(uint32_t at, uint32_t width)
{
	uint32_t value;

	pthread_mutex_lock(&kernel.lock);
	value = load_le32(kernel.hardware + at) & (width == 4 ? UINT32_MAX : (1u << 8 * width) - 1);
	pthread_mutex_unlock(&kernel.lock);
	return value;
}

void kernel_set_config(uint32_t at, uint32_t width, uint32_t value)
{
	pthread_mutex_lock(&kernel.lock);
	for (uint32_t i = 0; i < width; i++)
		kernel.hardware[at + i] = (uint8_t)(value >> 8 * i);
	kernel_show();
	pthread_mutex_unlock(&kernel.lock);
}

struct kernel_counts kernel_counts(void)
{
	struct kernel_counts counts;

	pthread_mutex_lock(&kernel.lock);
	counts = kernel.counts;
	counts.bound = 0;
	for (unsigned i = 0; i <= VFIO_PCI_MSIX_IRQ_INDEX; i++)
		for (unsigned v = 0; v < KERNEL_VECTORS; v++)
			counts.bound += kernel.fds[i][v] >= 0;
	pthread_mutex_unlock(&kernel.lock);
	return counts;
}
