################################################################################
#
# lastorders
#
################################################################################

# What is committed in the clone that this folder is in. Not the method "local": with that, Buildroot does not
# vendor the dependencies, and the build is offline. There is no hash of a commit that is not published.
LASTORDERS_TOP := $(realpath $(BR2_EXTERNAL_LASTORDERS_PATH)/../..)
LASTORDERS_VERSION := $(shell git -C $(LASTORDERS_TOP) rev-parse HEAD)
LASTORDERS_SITE = file://$(LASTORDERS_TOP)
LASTORDERS_SITE_METHOD = git
BR_NO_CHECK_HASH_FOR += $(LASTORDERS_SOURCE)
LASTORDERS_LICENSE = MIT or Apache-2.0
LASTORDERS_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE

define LASTORDERS_INSTALL_DEFAULTS
	$(INSTALL) -D -m 0644 $(@D)/board/rootfs-overlay/etc/default/lastorders \
		$(TARGET_DIR)/etc/default/lastorders
endef
LASTORDERS_POST_INSTALL_TARGET_HOOKS += LASTORDERS_INSTALL_DEFAULTS

define LASTORDERS_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/board/rootfs-overlay/etc/init.d/S50lastorders \
		$(TARGET_DIR)/etc/init.d/S50lastorders
endef

define LASTORDERS_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/board/systemd/lastorders.service \
		$(TARGET_DIR)/usr/lib/systemd/system/lastorders.service
endef

# Whom the init script has the daemon run as; systemd makes up a user.
define LASTORDERS_USERS
	lastorders -1 lastorders -1 * - - - lastorders
endef

$(eval $(cargo-package))
