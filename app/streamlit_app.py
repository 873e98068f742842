"""What `streamlit run app` starts: the pages, the routes that feed their charts, and the gate before both."""

from starlette.middleware import Middleware
from streamlit.runtime.pages_manager import PagesManager
from streamlit.starlette import App
from ui import access, asking, door, live
from ui.gate import Gate

# Before `st.navigation` has run once, Streamlit takes a folder called pages/ for its older kind of app and would run a page without main.py.
PagesManager.uses_pages_directory = False

ACCESS = access.begin()
app = App("main.py", routes=[*live.routes(), *asking.routes()], middleware=[Middleware(Gate, access=ACCESS)], lifespan=door.opened(ACCESS))
