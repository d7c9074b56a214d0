include $(sort $(wildcard $(BR2_EXTERNAL_LASTORDERS_PATH)/package/*/*.mk))
