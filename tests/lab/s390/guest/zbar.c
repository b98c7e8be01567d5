// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for the machine's scratch function: /dev/zbar0 maps BAR 0 into user programs, as drivers with doorbells do, for the s390_pci_mmio_write system call
 * (stock kernels have no resource files on s390). A write of n bytes at offset o is a memcpy_toio(), a read a memcpy_fromio(); the bits of the offset from 16 up
 * say where in its page the kernel's buffer begins.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/uaccess.h>

#define MOST 4096

/* The BAR, while there is one: one function at a time. */
static DEFINE_MUTEX(lock);
static void __iomem *bar;
/* Of the device node, once it has been mapped. */
static struct address_space *mapping;
static char buffer[2 * MOST] __aligned(4096);

static int zbar_mmap(struct file *file, struct vm_area_struct *area)
{
	int error = -ENODEV;

	area->vm_page_prot = pgprot_noncached(area->vm_page_prot);
	mutex_lock(&lock);
	mapping = file->f_mapping;
	if (bar)
		error = io_remap_pfn_range(area, area->vm_start, (u64 __force)bar >> PAGE_SHIFT, area->vm_end - area->vm_start,
					   area->vm_page_prot);
	mutex_unlock(&lock);
	return error;
}

static ssize_t zbar_write(struct file *file, const char __user *from, size_t length, loff_t *offset)
{
	char *at = buffer + (*offset >> 16);
	ssize_t result = length;

	if (length > MOST || *offset >> 16 >= MOST)
		return -EINVAL;
	mutex_lock(&lock);
	if (!bar)
		result = -ENODEV;
	else if (copy_from_user(at, from, length))
		result = -EFAULT;
	else
		memcpy_toio(bar + (*offset & 0xffff), at, length);
	mutex_unlock(&lock);
	return result;
}

static ssize_t zbar_read(struct file *file, char __user *to, size_t length, loff_t *offset)
{
	char *at = buffer + (*offset >> 16);
	ssize_t result = length;

	if (length > MOST || *offset >> 16 >= MOST)
		return -EINVAL;
	mutex_lock(&lock);
	if (!bar) {
		result = -ENODEV;
	} else {
		memset(at, 0, length);
		memcpy_fromio(at, bar + (*offset & 0xffff), length);
		if (copy_to_user(to, at, length))
			result = -EFAULT;
	}
	mutex_unlock(&lock);
	return result;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.mmap = zbar_mmap,
	.write = zbar_write,
	.read = zbar_read,
	.llseek = default_llseek,
};
static struct miscdevice device = { .minor = MISC_DYNAMIC_MINOR, .name = "zbar", .fops = &operations, .mode = 0666 };

static int zbar_probe(struct pci_dev *dev, const struct pci_device_id *id)
{
	int error = pcim_enable_device(dev);

	if (error)
		return error;
	mutex_lock(&lock);
	if (bar)
		error = -EBUSY;
	else
		bar = pci_iomap(dev, 0, 0);
	if (!error && !bar)
		error = -EIO;
	mutex_unlock(&lock);
	return error;
}

static void zbar_remove(struct pci_dev *dev)
{
	mutex_lock(&lock);
	pci_iounmap(dev, bar);
	bar = NULL;
	mutex_unlock(&lock);
	/* Whoever has it mapped is not to find another function there. */
	if (mapping)
		unmap_mapping_range(mapping, 0, 0, 1);
}

static const struct pci_device_id ids[] = { { PCI_DEVICE(0x1b36, 0x00ff) }, {} };
static struct pci_driver driver = { .name = "zbar", .id_table = ids, .probe = zbar_probe, .remove = zbar_remove };

static int __init zbar_init(void)
{
	int error = misc_register(&device);

	if (error)
		return error;
	error = pci_register_driver(&driver);
	if (error)
		misc_deregister(&device);
	return error;
}

static void __exit zbar_exit(void)
{
	pci_unregister_driver(&driver);
	misc_deregister(&device);
}

module_init(zbar_init);
module_exit(zbar_exit);
MODULE_DESCRIPTION("BAR 0 of the laboratory's scratch function");
MODULE_LICENSE("GPL");
