"""The parts of the pages, and the gate before them. Streamlit puts the app's folder on the path, so the pages import this as `ui`."""

from streamlit.runtime import Runtime

# The gate is in place before there is a runtime. In a server that was started past it (`streamlit run app/main.py`) no page is drawn:
# an import that fails is tried again by each page, and fails again. What streamlit's test client has is no Runtime, but a stand-in.
if Runtime.exists() and type(Runtime.instance()) is Runtime:
    raise RuntimeError("started like this the app asks nobody for a login; start it with: workbench app")
