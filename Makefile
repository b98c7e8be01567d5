# SPDX-License-Identifier: BSD-2-Clause
# A thin front to Meson: `make` builds the release into build/, `make install` follows the GNU conventions (prefix, DESTDIR, bindir, libdir, ...).
prefix ?= /usr/local
bindir ?= $(prefix)/bin
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
mandir ?= $(prefix)/share/man
DESTDIR ?=

all: build/build.ninja
	ninja -C build $(if $(V),-v) all

build/build.ninja:
	meson setup build -Dbuildtype=release -Dprefix=$(prefix) -Dbindir=$(bindir) -Dlibdir=$(libdir) -Dincludedir=$(includedir) -Dmandir=$(mandir)

install: all
	meson configure build -Dprefix=$(prefix) -Dbindir=$(bindir) -Dlibdir=$(libdir) -Dincludedir=$(includedir) -Dmandir=$(mandir)
	DESTDIR=$(DESTDIR) ninja -C build install

uninstall:
	ninja -C build uninstall

check:
	./check

clean:
	rm -rf build

.PHONY: all install uninstall check clean
