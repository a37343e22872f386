"""The safety gate as a library: pure numpy, time injected. The ROS node is a thin shell around it."""
