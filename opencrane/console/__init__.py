"""The console: pages for people, on Django's admin site with the unfold skin. Knows no domain; apps register pages."""
