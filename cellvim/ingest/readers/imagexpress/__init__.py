"""ImageXpress and MetaXpress: folders of images with or without a .HTD plan."""
