# SPDX-License-Identifier: BSD-2-Clause
# A thin front to Meson: `make` builds the release into build/, `make install` follows the GNU conventions for directories and DESTDIR.
# MESONFLAGS goes to `meson setup` when the build directory is made; CC, CFLAGS and LDFLAGS are taken from the environment or the command line.
prefix ?= /usr/local
exec_prefix ?= $(prefix)
bindir ?= $(exec_prefix)/bin
libdir ?= $(exec_prefix)/lib
includedir ?= $(prefix)/include
datarootdir ?= $(prefix)/share
datadir ?= $(datarootdir)
mandir ?= $(datarootdir)/man
DESTDIR ?=
builddir ?= build
MESONFLAGS ?=

directories = --prefix=$(abspath $(prefix)) --bindir=$(bindir) --libdir=$(libdir) --includedir=$(includedir) --datadir=$(datadir) --mandir=$(mandir)

all: $(builddir)/build.ninja
	ninja -C $(builddir) $(if $(V),-v) all

$(builddir)/build.ninja:
	meson setup $(builddir) --buildtype=release $(directories) $(MESONFLAGS)

# The directories of this call, not of the one that made the build directory. pintle.pc is made anew with them.
install: all
	meson configure $(builddir) $(directories)
	DESTDIR=$(abspath $(DESTDIR)) meson install -C $(builddir) --quiet

install-strip: all
	meson configure $(builddir) $(directories)
	DESTDIR=$(abspath $(DESTDIR)) meson install -C $(builddir) --quiet --strip

uninstall:
	ninja -C $(builddir) uninstall

check:
	./check

clean:
	rm -rf $(builddir)

distclean: clean

.PHONY: all install install-strip uninstall check clean distclean
