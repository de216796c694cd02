"""How models do on the documented symbols of whole packages that none of them was trained on."""
