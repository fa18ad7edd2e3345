"""What training and searching cost here, measured beside their floors."""
