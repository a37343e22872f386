"""From recordings to training files."""

from data_collection.conversion.images import Crop, fit_image
from data_collection.conversion.mcap_episode import IMAGE_TOPIC, STEP_TOPIC, convert_file, mcap_to_episode

__all__ = ["IMAGE_TOPIC", "STEP_TOPIC", "Crop", "convert_file", "fit_image", "mcap_to_episode"]
