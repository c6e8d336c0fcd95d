"""Files on Hadoop filesystems: through Hadoop's own API, in the driver's JVM."""
