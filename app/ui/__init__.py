"""What the pages share. `streamlit run app` puts the app's folder on the path, so the pages import this as `ui`."""
