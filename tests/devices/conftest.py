from tests.devices.fixtures import clean_device, device, device_site, device_wheels

__all__ = ["clean_device", "device", "device_site", "device_wheels"]
