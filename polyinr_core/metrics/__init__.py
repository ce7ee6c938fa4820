"""Metrics of image sets and of images: FID, KID, precision and recall, LPIPS, PSNR."""
