"""The image: deploy/Dockerfile, what its last step leaves in, and how it is built where no container engine is."""
