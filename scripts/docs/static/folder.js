// Opened from a folder, a page may not read other pages: search then shows titles without the words around them.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
