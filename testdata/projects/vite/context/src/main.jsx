import React from 'react';
import { createRoot } from 'react-dom/client';
import './style.css';

createRoot(document.getElementById('root')).render(React.createElement('h1', null, import.meta.env.VITE_API_URL));
